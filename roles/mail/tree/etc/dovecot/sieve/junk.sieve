# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
require ["fileinto", "mailbox"];
# What Rspamd marks is for the owner to look at, not to be lost.
if header :is "X-Spam" "Yes" {
    fileinto :create "Junk";
    stop;
}
